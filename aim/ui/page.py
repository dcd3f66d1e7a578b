"""The page as Gradio runs it: the one place where what went wrong becomes a sentence."""

from __future__ import annotations

import logging
import os
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, get_type_hints

import gradio as gr
from gradio.exceptions import InvalidPathError
from gradio.state_holder import SessionState, StateHolder
from pydantic import ValidationError

from aim.errors import AimError, InvalidInput, let_go
from aim.settings import Limits, Settings
from aim.ui import address, direct, temporary
from aim.ui.idle import Idle, Unheard, watch
from aim.ui.stage.updates import explain, plain
from aim.ui.temporary import Sweeper

SPARE = 48  # threads
_LOOK = 0.01  # seconds between two looks at whether somebody asks for something
_log = logging.getLogger(__name__)


class Refusal(gr.Error):
    """What a person or a program is told; ``text`` is nobody's HTML."""

    def __init__(self, text: str) -> None:
        super().__init__(plain(text), print_exception=False)

    def __str__(self) -> str:
        return str(self.message)


class Visits(StateHolder):
    """What Gradio remembers of sessions: values alone, where it would describe every component
    again for each. That is for links to a state, which this page makes otherwise, and took a fifth
    of the event loop's time.
    """

    def __getitem__(self, session_id: str) -> SessionState:
        """Of a session, a new one for one that is not known."""
        if session_id not in self.session_data:
            bare: Any = SimpleNamespace(default_config=self.blocks.default_config, blocks={})
            visit = self.session_data[session_id] = SessionState(bare)
            visit.blocks_config.config_for_block = lambda *_: {"props": {}}  # type: ignore[method-assign]
        return super().__getitem__(session_id)


class Page(gr.Blocks):
    """Blocks that refuse in words, whichever way a call came and wherever it failed. ``limits`` are
    those of the environment.
    """

    def __init__(self, **kwargs: Any) -> None:
        self.limits = Limits.from_env()
        self.tabs = Counter[str]()  # sessions whose page is open in a browser
        place = temporary.folder()  # before Gradio asks for it
        self._place, self._own = os.path.join(place, ""), set[str]()
        self.sweeper = Sweeper(place, 60 * self.limits.keep_minutes, self.forget)
        super().__init__(**kwargs)

    @property
    def threads(self) -> int:
        """One for each piece of work that the line lets in, and some for what ends at once."""
        return self.limits.places + self.limits.waiting + SPARE

    def queue(self, **kwargs: Any) -> Any:
        """As of ``gr.Blocks``, without a summary of all calls after each one, looking for news less
        often than a thousand times a second, and for Matplotlib once: each took a large part of a
        core.
        """
        super().queue(**kwargs)
        for fn in self.fns.values():  # Gradio reads them at every update; as text they are parsed
            function = getattr(fn.fn, "__func__", fn.fn)
            with suppress(AttributeError, NameError, TypeError):
                function.__annotations__ = get_type_hints(function)
        self._queue.ANALYTICS_MAX_EVENTS = 0
        self._queue.sleep_when_free = self._queue.progress_update_sleep_when_free = _LOOK
        if find_spec("matplotlib") is None:
            # Gradio imports it twice an update, which would look through every folder each time
            sys.modules["matplotlib"] = None  # type: ignore[assignment]
        return self

    def launch(self, *, server_port: int | None = None, **kwargs: Any) -> Any:  # type: ignore[override]
        """As of ``gr.Blocks``, within the limits. A port that is asked for, here or by
        GRADIO_SERVER_PORT, is taken, or AimError says that it cannot be.
        """
        settings = Settings.from_env()
        port = settings.port if server_port is None else server_port
        name = kwargs.pop("server_name", None) or settings.host
        path = kwargs.pop("root_path", None)
        kwargs["server_name"] = address.host(name)
        kwargs["root_path"] = address.root(settings.root if path is None else path)
        address.reach_itself(os.environ)
        kwargs["max_file_size"] = f"{self.limits.upload_mb}mb"
        kwargs["max_threads"] = self.threads
        kwargs["state_session_capacity"] = self.limits.sessions
        try:
            launched = super().launch(server_port=port, **kwargs)
            # what everybody's page begins with
            self._own = set(temporary.files_in(self.config, self._place))
            self.app.state_holder.__class__ = Visits
            self.sweeper.start()
            seconds = self.limits.receive_seconds
            unheard = Unheard(self._queue, seconds, self.stop)
            watch(self.server, Idle(self.server, seconds).look, unheard.look)
            return launched
        except OSError as error:
            what = "a port" if port is None else f"port {port}"
            raise AimError(
                f"{what} cannot be had on {name or 'this machine'}, as another program may listen "
                "there, or the address is not this machine's; end that, or choose another with "
                "--port or GRADIO_SERVER_PORT, --host or GRADIO_SERVER_NAME"
            ) from error

    def close(self, verbose: bool = True) -> None:
        """As of ``gr.Blocks``."""
        self.sweeper.stop()
        super().close(verbose)

    def stop(self, session: str) -> None:
        """End all that a session does."""
        if hasattr(self, "health"):
            self.health.models.line.stop(session)

    def forget(self) -> set[str]:
        """Forget sessions without an open page that were away for as long as files are kept, and
        messages that nobody fetched; returns the files that are on somebody's screen.
        """
        states, shown = self.app.state_holder, self._own.copy()
        away = datetime.now() - timedelta(minutes=self.limits.keep_minutes)
        for session, state in list(states.session_data.items()):
            if session not in self.tabs:
                if states.time_last_used.get(session, away) <= away:
                    states.session_data.pop(session, None)
                    states.time_last_used.pop(session, None)
                continue
            values = [config.get("props", {}).get("value") for config in state.components]
            shown.update(temporary.files_in([values, state.state_data], self._place))
        queue = self._queue
        busy = {event.session_hash for event in list(queue.event_ids_to_events.values())}
        for session in {*queue.pending_messages_per_session, *queue.pending_event_ids_session}:
            if session not in states.session_data and session not in busy:
                queue.pending_messages_per_session.pop(session, None)
                queue.pending_event_ids_session.pop(session, None)
        return shown

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        """What is left out at the end has its default, so that a new input, which comes last,
        breaks no program that posts values in order.
        """
        for block in block_fn.inputs[len(inputs) :]:
            if (default := getattr(block, "value", None)) is None:
                break
            inputs.append(default)
        if len(inputs) < len(block_fn.inputs):
            raise InvalidInput(
                f"{len(inputs)} values came, and {len(block_fn.inputs)} are needed; the page's "
                "API documentation lists them"
            )

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any) -> Any:
        """InvalidInput in place of Gradio's own many errors for a value that a component cannot
        take.
        """
        self.validate_inputs(block_fn, inputs)
        if (values := direct.taken(block_fn, inputs)) is not None:
            return values
        try:
            if _elsewhere(inputs):
                raise InvalidInput(
                    "a picture is to be uploaded; this server fetches none from another address"
                )
            return await super().preprocess_data(block_fn, inputs, *more)
        except AimError:
            raise
        except InvalidPathError as error:
            raise InvalidInput(
                "a file can be given that was uploaded here, and no other of this server"
            ) from error
        except OSError:
            raise
        except Exception as error:
            wrong = "a file" if isinstance(error, ValidationError) else "a value"
            raise InvalidInput(
                f"{wrong} that was sent is none that its input can take; the page's API "
                "documentation says what each takes"
            ) from error

    async def postprocess_data(
        self, block_fn: Any, predictions: Any, state: SessionState | None
    ) -> list[Any]:
        """As of ``gr.Blocks``."""
        answer = direct.sent(block_fn, predictions, state, self._place)
        if answer is None:
            answer = await super().postprocess_data(block_fn, predictions, state)
        return answer

    async def process_api(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As of ``gr.Blocks``; raises nothing but ``gr.Error``, whose message is plain text."""
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as error:
            if not isinstance(error, AimError):
                _log.exception("a call failed")
            let_go(error)
            raise Refusal(explain(error)) from error


def _elsewhere(value: Any) -> bool:
    """Whether a file is given by its address, at any depth: Gradio would fetch whatever is there,
    however large.
    """
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and path.lower().startswith(("http:", "https:")):
            return True
        value = list(value.values())
    return isinstance(value, (list, tuple)) and any(map(_elsewhere, value))
