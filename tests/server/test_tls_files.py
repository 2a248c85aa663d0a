"""The files of TLS: what is wrong with them is said before anything is started. Run: pytest tests/server/test_tls_files.py"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import pytest

from fakes.command import Triune
from support.certificates import LOCAL, PUBLIC, Authority, Pair, openssl
from triune_gateway.certificate import read
from triune_server.errors import ServerError
from triune_server.exposure import check_exposed
from triune_server.options import ServerOptions
from triune_server.telling import where
from triune_server.tls import called, check_tls, trust

PLAIN = ServerOptions(repository=Path("none"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def pair(authority: Authority) -> Pair:
    return authority.issue("good", *LOCAL)


def with_tls(certificate: Path | None, key: Path | None, **more: str) -> ServerOptions:
    return dataclasses.replace(PLAIN, tls_cert=certificate, tls_key=key, **more)


def refused(certificate: Path | None, key: Path | None) -> tuple[str, str]:
    with pytest.raises(ServerError) as caught:
        check_tls(with_tls(certificate, key))
    message, hint = str(caught.value.args[0]), caught.value.hint or ""
    assert hint and "\n" not in message + hint
    return message, hint


def test_a_certificate_says_what_openssl_reads_in_it(authority: Authority) -> None:
    found = read(authority.issue("read", *LOCAL, *PUBLIC, "IP:::1", days=11_000).certificate.read_text())
    assert found.names == ("localhost", "127.0.0.1", "llm.example.com", "*.example.org", "::1")
    end = openssl("x509", "-in", authority.issue("one", *LOCAL).certificate, "-noout", "-enddate").strip().partition("=")[2]
    one = read(authority.issue("two", *LOCAL, days=30).certificate.read_text())
    assert abs(one.not_after - time.mktime(time.strptime(end, "%b %d %H:%M:%S %Y GMT")) + time.timezone) < 60
    assert abs(one.not_before - time.time()) < 600 and abs(found.not_after - time.time() - 11_000 * 86_400) < 600
    assert time.gmtime(found.not_after).tm_year > 2050, "which is written otherwise"


def test_a_good_pair_is_taken_without_a_word(authority: Authority, pair: Pair) -> None:
    assert check_tls(PLAIN) == check_tls(with_tls(pair.certificate, pair.key)) == []
    chain = pair.certificate.with_name("chain.pem")
    chain.write_text(f"Subject: CN=good\n{pair.certificate.read_text()}{authority.file.read_text()}")
    assert check_tls(with_tls(chain, pair.key)) == []


def test_one_without_the_other_is_refused(pair: Pair) -> None:
    assert refused(pair.certificate, None)[0] == f"TLS_CERT is {pair.certificate}, and no TLS_KEY is named"
    assert refused(None, pair.key)[0] == f"TLS_KEY is {pair.key}, and no TLS_CERT is named"


def test_what_cannot_be_read_is_named(pair: Pair, tmp_path: Path) -> None:
    message, hint = refused(tmp_path / "none.pem", pair.key)
    assert message == f"the TLS certificate in {tmp_path}/none.pem cannot be read: No such file or directory"
    assert "TLS_CERT=FILE" in hint
    message, hint = refused(pair.certificate, tmp_path)
    assert message == f"the key of the TLS certificate in {tmp_path} cannot be read: Is a directory" and "TLS_KEY=FILE" in hint


def test_files_that_hold_something_else_are_named(pair: Pair, tmp_path: Path) -> None:
    assert refused(pair.key, pair.key)[0] == f"{pair.key} holds no certificate in PEM"
    assert refused(pair.certificate, pair.certificate)[0] == f"{pair.certificate} holds no private key in PEM"
    der = tmp_path / "one.der"
    openssl("x509", "-in", pair.certificate, "-outform", "der", "-out", der)
    message, hint = refused(der, pair.key)
    assert message.startswith(f"{der} is no PEM") and "-inform der" in hint
    broken = tmp_path / "broken.pem"
    broken.write_text(pair.certificate.read_text().replace("\nMII", "\nAAA", 1))
    assert refused(broken, pair.key)[0].startswith(f"the certificate in {broken} cannot be used")


def test_a_key_of_another_certificate_is_refused(authority: Authority, pair: Pair) -> None:
    other = authority.issue("other", *LOCAL)
    message, hint = refused(pair.certificate, other.key)
    assert message == f"the key in {other.key} does not belong to the certificate in {pair.certificate}"
    assert "comes first" in hint


@pytest.mark.parametrize("form", ["pkcs8", "traditional"])
def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(pair: Pair, tmp_path: Path, form: str) -> None:
    secret = tmp_path / "secret.key"
    old = ["-traditional"] if form == "traditional" else []
    openssl("pkey", "-in", pair.key, "-aes256", *old, "-passout", "pass:word", "-out", secret)
    message, hint = refused(pair.certificate, secret)
    assert f"the key in {secret} is protected by a password" in message and f"openssl pkey -in {secret}" in hint


def test_what_is_doubtful_is_said_and_served(authority: Authority, pair: Pair) -> None:
    ended = authority.issue("ended", *LOCAL, days=-1)
    (note,) = check_tls(with_tls(ended.certificate, ended.key))
    assert note.startswith(f"note: the certificate in {ended.certificate} ended 1.0 days ago")
    nameless = authority.issue("nameless")
    (note,) = check_tls(with_tls(nameless.certificate, nameless.key))
    assert "names no host" in note
    pair.key.chmod(0o644)
    (note,) = check_tls(with_tls(pair.certificate, pair.key))
    assert f"the key in {pair.key} can be used by others (its mode is -rw-r--r--): chmod 600" in note
    pair.key.chmod(0o600)


def test_without_the_front_there_is_no_tls(pair: Pair) -> None:
    with pytest.raises(ServerError, match="FRONT=off talks to Triton directly, whose HTTP and metrics speak no TLS"):
        check_exposed(with_tls(pair.certificate, pair.key, front="off"))


def test_it_is_said_before_anything_is_started(triune: Triune, pair: Pair) -> None:
    said = triune.fails("up", *triune.served, f"--tls-cert={pair.certificate}", "--tls-key=/none.key")
    assert "/none.key" in said and not (triune.run_folder / "server.log").exists()


def test_everybody_is_told_a_url_that_the_certificate_is_for(authority: Authority, pair: Pair) -> None:
    public = authority.issue("public", *PUBLIC)
    local = with_tls(pair.certificate, pair.key)
    assert f"curl -s --cacert {pair.certificate} https://127.0.0.1:8000/v2/models" in where(local)
    assert "chat page: https://127.0.0.1:8003/" in where(local) and "grpcs://127.0.0.1:8001" in where(local)
    opened = with_tls(public.certificate, public.key, host="0.0.0.0")
    assert "chat page: https://llm.example.com:8003/" in where(opened)
    assert f"chat --url https://127.0.0.1:8000 --ca-file={public.certificate} --server-name=llm.example.com" in where(opened)
    closed = with_tls(public.certificate, public.key, openai_host="0.0.0.0")
    assert "curl -s -k https://127.0.0.1:8000/" in where(closed), "it answers to no other name there"
    assert (called(closed, "http"), called(closed, "openai")) == (("127.0.0.1", False), ("llm.example.com", True))
    assert "https" not in where(PLAIN) and trust(PLAIN, PLAIN.http_url) == []
