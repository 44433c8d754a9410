"""Pictures of samples as data URIs, as many as the page may take."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass, field

from evalkit.tasks.panels import Gallery


@dataclass(frozen=True, slots=True)
class Album:
    """The pictures of a gallery as the page holds them: source and caption of each."""

    title: str
    note: str
    pictures: tuple[tuple[str, str], ...] = field(default=())


@dataclass(slots=True)
class Budget:
    """How many bytes of pictures the page may still take."""

    left: int = 1_200_000

    def albums(self, galleries: Iterable[Gallery]) -> list[Album]:
        """Return the galleries; a last one says whether pictures were left out."""
        albums, refused = [], False
        for gallery in galleries:
            pictures = []
            for picture in gallery.pictures:
                if len(picture.jpeg) > self.left:
                    refused = True
                    continue
                self.left -= len(picture.jpeg)
                source = f"data:image/jpeg;base64,{base64.b64encode(picture.jpeg).decode()}"
                pictures.append((source, picture.caption))
            albums.append(Album(gallery.title, gallery.note, tuple(pictures)))
        if refused:
            albums.append(Album("More", "Further pictures are left out to keep this file small."))
        return albums
