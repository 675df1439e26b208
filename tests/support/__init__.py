"""What the tests share: builders, snapshots, and what a test needs of the machine."""
