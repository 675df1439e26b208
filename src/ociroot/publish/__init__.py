"""Publication of results at their destination: complete and atomic, or not at all."""
