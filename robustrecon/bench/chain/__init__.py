"""The worst case alone: a chain of attacks, the cheapest first, each on the images that the ones before left."""
