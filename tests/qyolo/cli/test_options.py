from pathlib import Path

from qyolo.user_cache import cache_root


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("QYOLO_CACHE_DIR", "/somewhere/else")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/somewhere/else")


def test_the_cache_follows_xdg(monkeypatch):
    monkeypatch.delenv("QYOLO_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_root() == Path("/xdg/qyolo")


def test_the_cache_is_in_the_home_folder_otherwise(monkeypatch):
    monkeypatch.delenv("QYOLO_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert cache_root() == Path("/home/me/.cache/qyolo")
