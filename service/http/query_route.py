"""A route whose query is read at once, without FastAPI's dependencies.

Those are resolved anew for each request, which takes as long as decoding the raw boxes. What a
client sees is the same: the documentation, the values, the errors.
"""

from collections.abc import Callable, Coroutine
from typing import Any, get_type_hints

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.datastructures import QueryParams

PARAMS = "params"


class QueryRoute(APIRoute):
    """Of an endpoint that takes the request, its path's parameters as text, and `params`: a model
    of the query."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint
        model: type[BaseModel] = get_type_hints(endpoint)[PARAMS]
        fields = model.model_fields.items()
        many = frozenset(name for name, field in fields if field.default_factory is list)

        async def handle(request: Request) -> Response:
            params = read(model, many, request.query_params)
            response: Response = await endpoint(request, **request.path_params, params=params)
            return response

        return handle


def read(model: type[BaseModel], many: frozenset[str], query: QueryParams) -> BaseModel:
    """The query as a model: a list for what may be there `many` times, else the last; what the
    model does not know as well. Raises RequestValidationError."""
    given = {name: query.getlist(name) if name in many else query[name] for name in query}
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        faults = exc.errors(include_url=False)
        raise RequestValidationError([{**e, "loc": ("query", *e["loc"])} for e in faults]) from exc
