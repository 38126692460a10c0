"""The sets whose images' paths say all there is to know, each as the pattern of its paths.

    market1501    Market-1501: 1,501 people, 6 cameras. Zheng et al.: Scalable Person Re-identification: A Benchmark. ICCV
                  2015. gt_bbox is left out: it has the queries once more, and other crops of the same frames.
    personx       PersonX: 1,266 rendered people. Sun, Zheng: Dissecting Person Re-identification from the Viewpoint of
                  Viewpoint. CVPR 2019. The last number is an angle: no time, but where the names go on as Market-1501's do.
    market_style  Any other set in that naming: folders bounding_box_train, bounding_box_test and query.
    pku           PKU-Reid: 114 people, two cameras, eight orientations. Ma et al.: Orientation driven bag of appearances for
                  person re-identification. arXiv:1605.02464, 2016.
    ethz          ETHZ: 146 people in three sequences of one moving camera, each of which numbers its own people. Crops by
                  Schwartz, Davis, SIBGRAPI 2009; videos by Ess, Leibe, Van Gool, ICCV 2007.
    lpw           Labeled Pedestrian in the Wild: three scenes with 3, 4 and 4 cameras, which number their own people. Song
                  et al.: Region-based Quality Estimation Network for Large-Scale Person Re-identification. AAAI 2018.
    randperson    RandPerson, rendered; cameras are numbered within a scene. Wang, Liao, Shao: Surpassing Real-World Source
                  Training Data: Random 3D Characters for Generalizable Person Re-Identification. ACM MM 2020.
    unrealperson  UnrealPerson, rendered: one of its folders unreal_vX.Y. Zhang et al.: UnrealPerson: An Adaptive Pipeline
                  towards Costless Person Re-identification. CVPR 2021.

A pattern has the groups `person`, `camera` (there is but one without it) and, where names are times, `sequence` and `frame`.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from fedstil_mpi.data.files.listing import Tree
from fedstil_mpi.data.readers.records import ImageRecord, images, moment

NOBODY = "images of nobody: distractors (0000) and false alarms (-1)"


@dataclass(frozen=True)
class Named:
    """A reader, see `readers.Reader`."""

    folders: tuple[str, ...]
    """Each must be there, so that an incomplete copy does not pass for the set; "." is the root."""
    name: re.Pattern[str]
    """Of an image's path below its folder."""
    example: str
    own_people: bool = False
    """Each folder numbers its own people and cameras, and they come one after another in time."""
    nobody: tuple[str, ...] = ()
    """Numbers that are no person's."""

    @property
    def LAYOUT(self) -> str:  # noqa: N802
        folders = "" if self.folders == (".",) else f"the folders {', '.join(self.folders)} (each may be empty) with "
        return f"{folders}images such as {self.example}"

    def read(self, tree: Tree) -> Iterator[ImageRecord]:
        for folder, source, match in images(tree, self.folders, self.name, self.LAYOUT):
            found = match.groupdict()
            if found["person"] in self.nobody:
                tree.passed_over[NOBODY] += 1
                continue
            within = f"{folder}/" if self.own_people else ""
            camera = f"{within}{found['camera']}" if "camera" in found else "0"
            sequence = found.get("sequence") or (self.folders.index(folder) if self.own_people else 0)
            time = moment(int(sequence), int(found["frame"])) if found.get("frame") else None
            yield ImageRecord(tree / source, source, f"{within}{found['person']}", camera, time)


MARKET = ("bounding_box_train", "bounding_box_test", "query")
BOX = r"(?:(?P<frame>[0-9]{1,9})_[0-9]{1,4}|[0-9A-Za-z_]+)\.(?i:jpg)"
"""What follows the sequence: a frame and a box, as in Market-1501's names, or something else."""
MARKET_NAME = re.compile(r"(?P<person>-1|[0-9]{4})_c(?P<camera>[0-9]{1,2})s(?P<sequence>[0-9]{1,2})_" + BOX)
MARKET_STYLE = re.compile(
    r"(?P<person>-1|[0-9]{1,18})_[cC](?P<camera>[0-9]{1,9})(?:[sS](?P<sequence>[0-9]{1,9}))?"
    r"(?:_(?P<frame>[0-9]{1,9})_[0-9]{1,4}|[_0-9A-Za-z]*)\.(?i:jpe?g|png|bmp|webp)"
)
PKU_NAME = re.compile(r"(?P<person>[0-9]{3})_(?P<camera>[0-9]{2})_([0-9])\.(?i:png)")
ETHZ_NAME = re.compile(r"(?P<person>.+)/frame(?P<frame>[0-9]{4})Person[0-9]{2}\.(?i:png)")
LPW_NAME = re.compile(r"(?P<camera>view[0-9])/(?P<person>[0-9]{1,6})/(?P<frame>[0-9]{1,9})\.(?i:jpg)")
RANDPERSON_NAME = re.compile(
    r"(?P<person>[0-9]{4,9})_(?P<camera>(?:s[0-9]{1,3}_)?c[0-9]{1,3}(?:_s[0-9]{1,3})?)_f(?P<frame>[0-9]{1,9})\.(?i:jpg)"
)
UNREAL_NAME = re.compile(r"(?P<person>[0-9]{1,9})_c(?P<camera>[0-9]{1,4})_[0-9]{1,9}\.(?i:jpg)")

SETS = {
    "ethz": Named(("seq1", "seq2", "seq3"), ETHZ_NAME, "p001/frame0001Person01.png", own_people=True),
    "lpw": Named(("scen1", "scen2", "scen3"), LPW_NAME, "view1/12/00101.jpg", own_people=True),
    "market1501": Named(MARKET, MARKET_NAME, "0002_c1s1_000451_03.jpg", nobody=("0000", "-1")),
    "market_style": Named(MARKET, MARKET_STYLE, "0002_c1s1_000451_03.jpg or 0002_c1_1.png", nobody=("0000", "-1")),
    "personx": Named(MARKET, MARKET_NAME, "0001_c12s1_33.jpg", nobody=("0000", "-1")),
    "pku": Named((".",), PKU_NAME, "001_01_1.png (person, camera, orientation)"),
    "randperson": Named((".",), RANDPERSON_NAME, "000000_c00_s00_f000264.jpg or 000000_s00_c00_f000264.jpg"),
    "unrealperson": Named(("images",), UNREAL_NAME, "333_c001_78.jpg"),
}
"""Name of a set -> its reader."""
