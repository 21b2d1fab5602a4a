"""Speed as ratios in one run, on the same model and images: `make speed`, which installs the peers.

About 4 minutes on 2 cores. Absolute figures drift with the machine; the ratios are medians over rounds in which
the candidates take turns.
"""
