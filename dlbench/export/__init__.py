"""A row of a run as a checkpoint of its own: a static set of layers as an ordinary, shallower model."""
