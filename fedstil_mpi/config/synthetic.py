"""People and difficulty of the synthetic stream, as config keys."""

from dataclasses import dataclass

from fedstil_mpi.config.fields import bounded, choice

COLOURS = 10
"""How many colours of clothes there are."""


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """People and difficulty of the synthetic stream."""

    clients: int = bounded(5, 2, 20_000)
    """Cameras, each with a client; at least 2, as a gallery is taken by other cameras."""
    people_per_task: int = bounded(12, 2, 50_000)
    """People in every task of every client."""
    walkers: float = bounded(0.5, 0, 1)
    """Share of a task's people who turn up at a camera next door, one or two tasks later."""
    neighbours: str = choice("ring", "pairs")
    """Which cameras are next door to each other: ring (the one before and the one after, the last and the first, too) | pairs
    (0 and 1, 2 and 3, and so on; of an odd number of cameras the last shares nobody with any)."""
    strangers: int = bounded(0, 0, 50_000)
    """People in every task of every client besides who are only searched: nobody ever trains on them, and they turn up nowhere
    again. Their gallery images stand among those of the others."""
    train_images: int = bounded(5, 1, 10**4)
    """Training images a person and task."""
    query_images: int = bounded(2, 1, 10**4)
    """Query images a person and task, by the same camera."""
    gallery_images: int = bounded(2, 1, 10**4)
    """Gallery images a person and task, by other cameras."""
    camera_strength: float = bounded(1.0, 0, 100)
    """How much cameras differ in light, colours, sharpness and view; 0: all see alike."""
    drift: float = bounded(1.0, 0, 100)
    """Illumination drift, how far day turns into evening (by how much depends on the camera: 9 to 38 % less exposure,
    another colour temperature, light from another side, more blur and noise); 0: not at all."""
    drift_course: str = choice("gradual", "sudden", "recurring")
    """How drifts run over the tasks, as continual learning has it; all begin at nothing in the first task. gradual:
    evenly to the last task | sudden: all at once, halfway | recurring: full in every second task, gone between."""
    weather: float = bounded(0.0, 0, 100)
    """Haze, the same at all cameras but another in each task whatever `drift_course`: its optical depth at the worst;
    contrast falls to exp(-depth). The first task is clear. 0: never any."""
    crowding: float = bounded(0.0, 0, 1)
    """Growing occlusion: share of the images so far unobstructed (see `occlusion`) that a crowd obstructs in the end."""
    wardrobe: float = bounded(0.0, 0, 1)
    """Drift of appearance with the season: share of those first met when it is complete who wear winter clothes, that is
    long sleeves and the darkest third of the colours, above and below. Nobody ever changes clothes."""
    wear: float = bounded(0.0, 0, 100)
    """Ageing cameras, each at a pace of its own: 1 at least doubles the blur and the sensor noise of an average camera;
    0: as good as new."""
    colours: int = bounded(7, 2, COLOURS)
    """How many colours clothes come in; the fewer, the more people look alike."""
    colour_jitter: float = bounded(0.04, 0, 100)
    """Standard deviation of a garment's colour around the common one, of 1."""
    occlusion: float = bounded(0.2, 0, 1)
    """Share of images in which something stands in front of the person."""
    warmup_people: int = bounded(200, 0, 10**6)
    """People in the server's own images; 0: the server has none."""
    warmup_cameras: int = bounded(4, 1, 1000)
    """Cameras that took them."""
    warmup_images: int = bounded(8, 1, 10**4)
    """The server's images a person, taken by the cameras in turn."""
