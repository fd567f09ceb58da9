"""URL PHOTO: the results of Roboflow's inference-sdk and of supervision, as JSON."""

import json
import sys

import supervision as sv
from inference_sdk import InferenceConfiguration, InferenceHTTPClient
from inference_sdk.http.errors import HTTPCallErrorError

url, photo = sys.argv[1:]
client = InferenceHTTPClient(url)
models = [model.model_id for model in client.list_loaded_models().models]
model = models[0]


def configured(**options):
    return client.use_configuration(InferenceConfiguration(**options))


def refused(ask):
    try:
        ask()
    except HTTPCallErrorError as exc:
        return [exc.status_code, exc.api_message]
    return None


wanted = {"confidence_threshold": 0.05, "iou_threshold": 0.45, "max_detections": 5}
with configured(**wanted, visualize_predictions=True):
    drawn = client.infer(photo, model_id=model)
with configured(**wanted):
    found = client.infer(photo, model_id=model)
    fp32 = client.infer(photo, model_id=f"{model}/fp32")
with configured(**wanted, max_batch_size=2):
    both = client.infer([photo, photo], model_id=model)
with configured(**wanted, class_filter=["dog"]):
    dogs = client.infer(photo, model_id=model)
with configured(class_agnostic_nms=True):
    agnostic = refused(lambda: client.infer(photo, model_id=model))
seen = sv.Detections.from_inference(found)
results = {
    "info": client.get_server_info().to_dict(),
    "models": models,
    "loaded": len(client.load_model(model).models),
    "unloaded": len(client.unload_model(model).models),
    "cleared": len(client.unload_all_models().models),
    "found": found,
    "fp32": fp32,
    "both": both,
    "dogs": dogs,
    "visualization": drawn["visualization"],
    "supervision": {
        "xyxy": seen.xyxy.tolist(),
        "confidence": seen.confidence.tolist(),
        "class_id": seen.class_id.tolist(),
        "class_name": seen.data["class_name"].tolist(),
    },
    "refused": {
        "model": refused(lambda: client.infer(photo, model_id="other/1")),
        "agnostic": agnostic,
    },
}
json.dump(results, sys.stdout)
