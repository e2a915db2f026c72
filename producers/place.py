"""Where a replay stands, kept in a small file of the data folder over stops and kills."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from pathlib import Path
from urllib.parse import quote

import msgspec

from headrace.errors import DataFolderError
from headrace.pipeline.model import Replay
from headrace.settings import writable_folder
from producers.replay import Place

logger = logging.getLogger("headrace.producers")


class _Saved(msgspec.Struct, forbid_unknown_fields=True):
    recording: str
    rows: list[int]
    moved_us: int


class PlaceFile:
    """The place of one replay. It holds for the same recording, replayed as the same devices."""

    def __init__(self, folder: Path, name: str, recording: Path, declared: Replay) -> None:
        self.path = writable_folder(folder) / f"{quote(name, safe='')}.json"
        self._recording = _fingerprint(recording, declared)

    def load(self) -> Place | None:
        """The place kept; None when there is none, or when it is that of another recording."""
        try:
            saved = msgspec.json.decode(self.path.read_bytes(), type=_Saved)
        except FileNotFoundError:
            return None
        except msgspec.MsgspecError:
            logger.warning("this file holds no place: the replay begins at the start", extra={"file": str(self.path)})
            return None
        if saved.recording != self._recording:
            logger.warning(
                "the recording or its devices are others than before: the replay begins at the start",
                extra={"file": str(self.path)},
            )
            return None
        return Place(tuple(saved.rows), saved.moved_us)

    def save(self, place: Place) -> None:
        """Keep the place. The file is at any moment the old one or the new one, whole."""
        text = json.dumps({"recording": self._recording, "rows": place.rows, "moved_us": place.moved_us})
        new = self.path.with_suffix(".new")
        try:
            with new.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self.path)
        except OSError as error:
            raise DataFolderError(
                f"the replay's place {self.path} cannot be written: {error.strerror}",
                hint="make room there, or choose another data folder with --data",
            ) from None

    def forget(self) -> None:
        """Begin at the start next time."""
        self.path.unlink(missing_ok=True)


def _fingerprint(recording: Path, declared: Replay) -> str:
    """Tells recordings apart without reading them whole."""
    digest = hashlib.sha256(f"{declared.devices}/{declared.device}/{declared.time.columns}".encode())
    if recording.is_file():
        with recording.open("rb") as file:
            digest.update(f"/{recording.stat().st_size}/".encode() + file.read(1 << 16))
    return digest.hexdigest()[:32]
