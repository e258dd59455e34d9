"""The pages of a site and the files beside them."""
