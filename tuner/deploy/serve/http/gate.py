"""What is refused at once while the queue is full."""

import re
from typing import Any

from tuner.deploy.serve.http.admission import Admission
from tuner.deploy.serve.measures import Measures
from tuner.deploy.serve.rollout.models import Models

_PREDICT = re.compile(r"/v1/models/([^/]+)/predict")


class Gate:
    """Refuses requests for predictions while the queue is full, before anything else is done for them.

    All that were refused come again after the same seconds. By way of the routes 200 of them would take as long as 200
    answers, and those that are let in would wait for them, too.

    Args:
        app: The application behind it.
        admission: The queue.
        models: The models that can be asked.
        measures: What counts.
    """

    def __init__(self, app: Any, admission: Admission, models: Models, measures: Measures) -> None:
        self._app, self._admission, self._models, self._measures = app, admission, models, measures

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            self._admission.is_full
            and scope["type"] == "http"
            and scope["method"] == "POST"
            and (asked := _PREDICT.fullmatch(scope["path"])) is not None
            and asked[1] in self._models
        ):
            refused = self._admission.refusal()
            self._measures.requests.labels(asked[1], "", "", str(refused.status)).inc()
            await refused.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)
