"""`make fuzz`: nonsense for minutes at every door, half of the time at the broker's and half at the interface's."""

import argparse
import sys

from tests.fuzz import doors, openapi


def main() -> int:
    """Both, whatever the first one found; the exit code says whether all is well."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=300, help="how long in all")
    seconds = str(parser.parse_args().seconds // 2)
    return doors.main(["--seconds", seconds]) | openapi.main(["--seconds", seconds])


if __name__ == "__main__":
    sys.exit(main())
