"""The brain mask of an image: given, its nonzero voxels, or found with its pose by one network in whatever surrounds it."""
