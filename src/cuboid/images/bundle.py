"""What a registry and an archive both come down to: a checked configuration and layers that can be had."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from cuboid.images.manifest import ARCHITECTURE, OS, Configuration, Descriptor, wrong_platform
from cuboid.images.settings import ImageSettings
from cuboid.lib.errors import HostileError, UnsupportedError

FORMAT = 1  # raise when the converter writes other bytes for the same layers


@dataclass(frozen=True)
class Bundle:
    """An image whose metadata is known and checked; `layers` and the configuration's diff ids run in step."""

    id: str
    digest: str
    names: tuple[str, ...]
    pins: tuple[str, ...]
    configuration: Configuration
    layers: tuple[Descriptor, ...]

    @property
    def device_key(self) -> str:
        """Hexadecimal digest of all that the device's bytes depend on. Images with equal layers share a device."""
        what = json.dumps([FORMAT, *self.configuration.diff_ids])
        return hashlib.sha256(what.encode()).hexdigest()


def check(configuration: Configuration, layers: tuple[Descriptor, ...], settings: ImageSettings, what: str) -> None:
    """HostileError or UnsupportedError for an image that cannot be run here."""
    platform = configuration.platform
    if (platform.os or OS, platform.architecture or ARCHITECTURE) != (OS, ARCHITECTURE):
        raise wrong_platform(what, str(platform))
    if len(layers) > settings.max_layers:
        raise UnsupportedError(
            f"{what} has {len(layers)} layers, more than {settings.max_layers}", hint="[images] max_layers"
        )
    if any(layer.size > settings.max_layer_bytes for layer in layers):
        raise UnsupportedError(
            f"{what} has a layer of more than {settings.max_layer_bytes >> 20} MiB", hint="[images] max_layer_bytes"
        )
    if len(configuration.diff_ids) != len(layers):
        raise HostileError(
            f"{what} has {len(layers)} layers, but its configuration names {len(configuration.diff_ids)}"
        )
