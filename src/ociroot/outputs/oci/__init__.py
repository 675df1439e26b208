"""An image as an OCI image layout or a docker-archive, from blobs that are copied or written."""
