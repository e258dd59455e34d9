"""The built-in methods: one file each, and the name of the file is the name of the method."""
