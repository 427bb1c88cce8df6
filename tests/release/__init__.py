"""What is checked of a release: its files, its version, and that it works where nothing else of ours is."""
