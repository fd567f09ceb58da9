"""The options of a server, once for every command that serves: over the environment's settings."""

from pydantic import ValidationError

from quantizer.errors import QuantizerError
from qyolo.cli import options
from qyolo.cli.shared_options import in_place_of
from service.settings import Settings


def settings_from(
    host: options.Host = None,
    port: options.Port = None,
    threads: options.Threads = None,
    throughput: options.Throughput = None,
    collect: options.Collect = None,
    ab: options.Ab = None,
    shadow: options.Shadow = None,
    insecure: options.Insecure = None,
) -> Settings:
    """The environment's settings, overridden by the command line; raises QuantizerError."""
    given = {
        "host": host,
        "port": port,
        "threads": threads,
        "throughput": throughput,
        "collect": collect,
        "ab": ab,
        "shadow": shadow,
        "insecure": insecure,
    }
    try:
        settings = Settings()
    except ValidationError as exc:
        first = exc.errors()[0]
        raise QuantizerError(f"QYOLO_{str(first['loc'][0]).upper()}: {first['msg']}") from exc
    return settings.model_copy(
        update={name: value for name, value in given.items() if value is not None}
    )


def cluster_settings_from(
    host: options.Host = None,
    port: options.Port = None,
    threads: options.Threads = None,
    throughput: options.Throughput = None,
    ab: options.Ab = None,
    insecure: options.Insecure = None,
) -> Settings:
    """The same without what only one server does by itself."""
    return settings_from(
        host=host, port=port, threads=threads, throughput=throughput, ab=ab, insecure=insecure
    )


takes_settings = in_place_of("settings", settings_from)
takes_cluster_settings = in_place_of("settings", cluster_settings_from)
