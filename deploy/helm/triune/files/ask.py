"""Asks a gateway a question: URL [FILE of keys]. For `helm test`."""

import json
import ssl
import sys
import urllib.request
from pathlib import Path

QUESTION = "What is the capital of France?"


def main(url: str, keys: str = "") -> str:
    """What the model says.

    Raises:
        ValueError: nothing.
    """
    headers = {"content-type": "application/json"}
    if keys:
        lines = (line.strip() for line in Path(keys).read_text("utf-8").splitlines())
        key = next(line for line in lines if line and not line.startswith("#"))
        headers["authorization"] = f"Bearer {key.split(' #')[0].strip()}"
    body = {"model": "triune", "max_tokens": 32, "messages": [{"role": "user", "content": QUESTION}]}
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(body).encode(), headers)
    any_name = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # of the Service here, which no certificate has
    any_name.check_hostname, any_name.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(request, timeout=120, context=any_name if url.startswith("https:") else None) as response:
        choice = json.load(response)["choices"][0]
    said = choice["message"].get("content") or choice["message"].get("reasoning_content")
    if not said:
        raise ValueError(f"an empty answer: {choice}")
    return str(said)


if __name__ == "__main__":
    try:
        print(f"{QUESTION} {main(*sys.argv[1:])}")
    except (OSError, ValueError, LookupError) as error:
        sys.exit(f"error: {error}")
