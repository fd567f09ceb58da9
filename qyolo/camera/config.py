"""The options of `qyolo watch`."""

from pydantic import BaseModel, Field


class WatchConfig(BaseModel, frozen=True):
    """One camera, the server that it asks, and where its events go."""

    source: str
    server: str = Field(
        "http://127.0.0.1:8000",
        pattern=r"^https?://[^/]",
        description="the qyolo server",
        json_schema_extra={"env": "QYOLO_SERVER", "metavar": "URL"},
    )
    api_key: str | None = Field(
        None, description="API key of the server", json_schema_extra={"env": "QYOLO_API_KEY"}
    )
    served_model: str | None = Field(
        None,
        description="model of a server that has several; default: its first",
        json_schema_extra={"option": "model", "metavar": "NAME"},
    )
    variant: str | None = Field(None, description="variant to ask for; default: the server's")
    classes: str | None = Field(
        None,
        description="classes to report, comma-separated; default: all of the model, each of which "
        "Home Assistant discovers when it is first seen",
    )
    conf: float = Field(0.5, ge=0, le=0.99, description="score threshold")
    fps: float = Field(5, ge=0.01, le=60, description="most frames a second that the server gets")
    confirm: int = Field(
        2, ge=1, description="frames in a row that an object must be in to have appeared"
    )
    cooldown: float = Field(
        10,
        ge=1,
        description="seconds without an object until it has left, and without an answer of the "
        "server until the camera is unavailable",
    )
    loop: bool = Field(False, description="play a file again and again")
    name: str | None = Field(
        None,
        pattern="^[a-z0-9_-]+$",
        description="name of the camera in topics and in Home Assistant, which no other camera may "
        "have; default: the host or the file's name",
    )
    mqtt: str | None = Field(
        None,
        description="broker for events, states and Home Assistant's discovery, as "
        "mqtt://USER:<password>@HOST:1883; mqtts:// for TLS",
        json_schema_extra={"env": "QYOLO_MQTT", "metavar": "URL"},
    )
    mqtt_password: str | None = Field(
        None,
        description="the broker's password, if the URL has none",
        json_schema_extra={"env": "QYOLO_MQTT_PASSWORD"},
    )
    mjpeg_port: int | None = Field(
        None,
        ge=0,
        le=65535,
        description="port that serves an MJPEG stream with boxes at / and the newest picture at "
        "/snapshot.jpg; 0 picks a free one",
    )
    mjpeg_host: str = Field("127.0.0.1", description="address to serve the stream on")
    insecure: bool = Field(
        False, description="serve the stream on an address that others can reach"
    )
