"""The brain mask of an image: given, the nonzero voxels, or predicted by networks, which also estimate the pose."""
