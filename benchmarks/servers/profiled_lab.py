"""The lab with a profile of its loop's thread: `profiled_lab.py FOLDER`.

Prints where it listens as one line of JSON. Once its standard input is closed it writes
FOLDER/profile, for `pstats`, and ends.
"""

from __future__ import annotations

import cProfile
import json
import sys
from pathlib import Path

from labserver import Lab
from labserver.network.loopback import LoopbackNetwork


def main(folder: Path) -> None:
    profile = cProfile.Profile()
    network = LoopbackNetwork()
    with Lab(network=network, data=folder / "mail", catch_all=True) as lab:
        network.run(profile.enable)
        print(json.dumps({name: list(place) for name, place in lab.listeners.items()}), flush=True)
        sys.stdin.read()
        network.run(profile.disable)
    network.close()
    profile.dump_stats(str(folder / "profile"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
