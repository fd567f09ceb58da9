"""Watch a camera: newest frame -> boxes from a server -> events, MQTT, a stream with boxes."""
