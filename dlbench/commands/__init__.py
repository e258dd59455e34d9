"""The commands of dlbench, one file each: options in, one call into the package out; importing them is fast."""
