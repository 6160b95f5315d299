"""Fetches BASE/job/1 to BASE/job/COUNT, 50 at a time, as a program would that
knows nothing of rate limits. Writes each body to a file named by its number and
prints a line per answer: status and number.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests
from requests.adapters import HTTPAdapter

PARALLEL = 50
# Longer than any wait in the queue.
TIMEOUT = 90

base, count = sys.argv[1], int(sys.argv[2])
session = requests.Session()
session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=PARALLEL))


def fetch(number):
    answer = session.get(f"{base}/job/{number}", timeout=TIMEOUT)
    Path(str(number)).write_bytes(answer.content)
    return f"{answer.status_code} {number}"


with ThreadPoolExecutor(PARALLEL) as pool:
    for line in pool.map(fetch, range(1, count + 1)):
        print(line)
