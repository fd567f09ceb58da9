"""httpx for servers without TLS: to read the certificates takes longer than a request."""

from functools import partial

import httpx

client = partial(httpx.Client, verify=False)
get = partial(httpx.get, verify=False)
post = partial(httpx.post, verify=False)
