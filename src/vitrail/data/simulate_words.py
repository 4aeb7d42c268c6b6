"""The words of the simulated shop: what its things are called and how they are spoken of."""

from __future__ import annotations

CATEGORIES: dict[str, dict[str, str]] = {
    "lipstick": {
        "matte lipstick": "velvety long-wearing powdery pigment",
        "lip gloss": "glossy plumping shimmering vinyl",
        "lip balm": "nourishing shea beeswax soothing",
        "lip liner": "precise waterproof defining pencil",
    },
    "perfume": {
        "floral perfume": "jasmine peony rose bouquet",
        "woody perfume": "cedar sandalwood vetiver smoky",
        "citrus cologne": "bergamot grapefruit neroli zesty",
        "gourmand perfume": "vanilla caramel tonka praline",
    },
    "shampoo": {
        "repair shampoo": "keratin strengthening split-ends protein",
        "volume shampoo": "lifting airy fine-hair rice",
        "scalp scrub": "exfoliating charcoal peppermint salt",
        "hair mask": "argan deep-conditioning coconut overnight",
    },
    "soap": {
        "bar soap": "olive-oil hand-cut cold-pressed lather",
        "hand wash": "pump gentle aloe rinse",
        "bath bomb": "fizzing bath-time petals foaming",
        "body scrub": "sugar coffee-ground polishing smooth",
    },
    "candle": {
        "pillar candle": "dripless tall beeswax dinner-table",
        "scented candle": "soy-wax fig amber aroma",
        "tea light": "tiny flickering votive set",
        "wax melt": "flameless burner cubes fragrance",
    },
    "mug": {
        "espresso cup": "small-batch thick-walled crema saucer",
        "travel mug": "insulated leak-proof steel commuter",
        "breakfast mug": "roomy stoneware morning handle",
        "tea glass": "double-walled borosilicate clear heat-proof",
    },
    "lamp": {
        "desk lamp": "swing-arm task dimmable study",
        "floor lamp": "tripod corner reading standing",
        "night light": "bedside glow rechargeable nursery",
        "pendant lamp": "ceiling hanging shade dining",
    },
    "cushion": {
        "velvet cushion": "plush piped sofa luxurious",
        "outdoor cushion": "garden weatherproof patio quick-dry",
        "floor cushion": "meditation buckwheat seating tufted",
        "neck pillow": "memory-foam travel ergonomic nap",
    },
    "notebook": {
        "sketchbook": "heavyweight acid-free drawing watercolour",
        "day planner": "dated weekly goals schedule",
        "pocket notebook": "stitched jotting slim field-notes",
        "recipe journal": "kitchen wipe-clean tabs cooking",
    },
    "pen": {
        "fountain pen": "iridium nib ink-converter calligraphy",
        "gel pen": "quick-drying fine-tip smooth click",
        "brush pen": "lettering flexible bristle strokes",
        "marker set": "alcohol-based dual-tip layout blendable",
    },
    "scarf": {
        "silk scarf": "lustrous hand-rolled twill evening",
        "wool scarf": "merino chunky winter warm",
        "cotton shawl": "breezy summer wrap gauze",
        "snood": "running fleece windproof loop",
    },
    "hat": {
        "beanie": "ribbed knitted snug fold-over",
        "sun hat": "wide-brim straw beach packable",
        "cap": "six-panel curved-peak sporty adjustable",
        "beret": "felted parisian soft-wool classic",
    },
    "bag": {
        "tote bag": "canvas market shoulder everyday",
        "backpack": "laptop-sleeve padded hiking straps",
        "clutch": "clasp evening chain envelope",
        "weekender": "leather-trim duffel overnight holdall",
    },
    "socks": {
        "running socks": "cushioned sweat-wicking blister-free arch",
        "bed socks": "fluffy cosy lounge chenille",
        "dress socks": "mercerised calf-length office ribbed-top",
        "hiking socks": "reinforced trail merino-blend ankle",
    },
    "tea": {
        "green tea": "sencha grassy steamed umami",
        "black tea": "malty assam brisk breakfast-blend",
        "herbal tea": "camomile caffeine-free lemon-balm bedtime",
        "chai": "cardamom ginger clove spiced",
    },
    "chocolate": {
        "dark chocolate": "single-origin bitter cacao-nibs intense",
        "milk chocolate": "creamy alpine hazelnut mellow",
        "truffles": "ganache dusted gift-box melting",
        "drinking chocolate": "whisked cocoa-flakes winter-evening hot",
    },
}
"""category -> subcategory -> words that speak of it. Every category has the same number of subcategories."""

SUBCATEGORIES = 4

COLOURS: dict[str, tuple[tuple[int, int, int], str]] = {
    "red": ((200, 48, 52), "bold fiery passionate scarlet"),
    "orange": ((228, 128, 40), "sunny warm autumnal amber-toned"),
    "yellow": ((232, 196, 62), "bright cheerful lemony playful"),
    "green": ((66, 146, 82), "leafy fresh botanical mossy"),
    "blue": ((46, 104, 182), "calm nautical oceanic indigo"),
    "violet": ((126, 78, 168), "dreamy mystical lavender royal"),
    "pink": ((226, 134, 168), "romantic blush sweet rosy"),
    "grey": ((112, 118, 126), "minimal understated stone-toned urban"),
}
"""colour -> its RGB and the words of its style."""

SHAPES = ("circle", "square", "triangle", "diamond", "hexagon", "star", "drop", "cross")
PATTERNS = ("plain", "stripes", "dots", "checks")

FINISHES = ("handmade", "limited", "classic", "organic", "recycled", "compact", "refillable", "studio", "heritage", "travel-size", "signature", "everyday")
"""Words that say nothing of the latent factors: the noise of real titles."""

OPENINGS = (
    "Think {a} and {b}: that is this {noun}.",
    "A {noun} for friends of {a} and {b}.",
    "What people say of this {noun}: {a}, {b}.",
    "{A}, {b}: all that a {noun} should be.",
)
MIDDLES = ("Its {colour} look is {c}.", "With a {c} touch of {colour}.", "It comes in a {c} {colour}.", "In {colour}, for those who like it {c}.")
CLOSINGS = ("Pairs well with any other {category}.", "From our {category} shelf.", "A gift from the {category} table.", "Part of the {category} range.")

AGES = ("18-24", "25-34", "35-44", "45-59", "60+")
COUNTRIES = ("AT", "CH", "DE", "ES", "FR", "IT", "NL", "PL")
