"""Published systems, one file each, in a folder per family."""
