"""The words of scene captions, for the code that writes captions and the code that reads them.

The first word of each row is the usual one; the others say the same.
"""

SHAPE_WORDS = {
    "circle": ("circle", "disc", "ball"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid", "wedge"),
    "star": ("star",),
    "heart": ("heart", "love heart"),
    "cross": ("cross", "plus sign", "plus"),
    "diamond": ("diamond", "rhombus"),
    "ring": ("ring", "hoop", "doughnut"),
    "moon": ("moon", "crescent", "crescent moon"),
}
THING_WORDS = ("shape", "thing", "object", "figure")  # for a thing of any shape
COLOUR_WORDS = {
    "red": ("red", "scarlet"),
    "orange": ("orange", "amber"),
    "yellow": ("yellow", "lemon"),
    "green": ("green", "emerald"),
    "blue": ("blue", "royal blue"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white", "snowy"),
}
SIZE_WORDS = {"small": ("small", "little", "tiny"), "large": ("big", "large", "huge")}
PATTERN_WORDS = {
    "plain": ("plain", "unpatterned"),
    "striped": ("striped", "stripy"),
    "dotted": ("dotted", "spotted", "spotty"),
    "checked": ("checked", "chequered"),
}
PATTERN_TAILS = {  # said after the noun
    "striped": ("with stripes", "covered in stripes"),
    "dotted": ("with dots", "with spots", "covered in polka dots"),
    "checked": ("with a checked pattern", "with checks"),
}
NUMBER_WORDS = {
    2: ("two", "two", "a pair of", "a couple of"),
    3: ("three", "three", "a trio of"),
    4: ("four",),
}
PLACES = {
    "sand": ("on the sand", "on the beach", "on a sandy beach", "in the desert"),
    "grass": ("on the grass", "on a lawn", "in a meadow", "on a grassy field"),
    "water": ("on the water", "in the sea", "on rippling water", "on the waves"),
    "night": ("in the night sky", "at night", "against a starry sky", "in the dark"),
    "brick": ("on a brick wall", "against a wall of bricks", "on the bricks"),
    "wood": ("on a wooden table", "on the planks", "on wooden boards", "on a wooden floor"),
    "paper": ("on a sheet of paper", "on squared paper", "on a page of an exercise book"),
}
PLACE_KEYS = {  # any of these words names the background
    "sand": ("sand", "sandy", "beach", "desert"),
    "grass": ("grass", "grassy", "lawn", "meadow"),
    "water": ("water", "sea", "waves"),
    "night": ("night", "sky", "starry", "dark"),
    "brick": ("brick", "bricks"),
    "wood": ("wood", "wooden", "planks", "boards", "table", "floor"),
    "paper": ("paper", "page", "book"),
}
RELATION_WORDS = {  # the first thing is ... the second
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "underneath", "lower than"),
    "beside": ("next to", "beside", "alongside"),
    "front": ("in front of", "partly covering", "hiding part of"),
    "behind": ("behind", "partly covered by", "half hidden by", "peeking out from behind"),
    "between": ("between", "in between"),
}
ACTION_WORDS = {
    "left": ("moves to the left", "slides left", "drifts leftwards", "goes from right to left"),
    "right": ("moves to the right", "slides right", "drifts rightwards", "goes from left to right"),
    "up": ("moves up", "rises", "climbs slowly", "goes upwards"),
    "down": ("moves down", "sinks", "falls slowly", "goes downwards"),
    "grow": ("grows", "gets bigger", "swells", "becomes larger and larger"),
    "shrink": ("shrinks", "gets smaller", "dwindles", "becomes smaller and smaller"),
    "meet": ("meet", "come together", "approach each other", "get closer"),
    "part": ("part", "move apart", "separate", "drift away from each other"),
}


def plural(noun: str) -> str:
    """The plural of a noun, such as "boxes" for "box"."""
    return noun + ("es" if noun.endswith(("x", "s")) else "s")
