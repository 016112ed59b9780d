"""The methods of the paper's tables, and four published since: one line each in `METHODS`."""

from rmploss.recipes.method import Method
from rmploss.recipes.methods import (
    diet,
    dsr,
    im,
    inflor,
    joint,
    liaf,
    mpd_agl,
    mpd_sgr,
    plif,
    real,
    recdis,
    rmp,
    sew,
    spiking_resnet,
    stbp,
    tdbn,
    tet,
    tgo,
    tssl,
    vanilla,
    weak2strong,
)

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        vanilla.METHOD,
        rmp.METHOD,
        tdbn.METHOD,
        inflor.METHOD,
        im.METHOD,
        recdis.METHOD,
        stbp.METHOD,
        plif.METHOD,
        tet.METHOD,
        tssl.METHOD,
        sew.METHOD,
        spiking_resnet.METHOD,
        joint.METHOD,
        diet.METHOD,
        real.METHOD,
        dsr.METHOD,
        liaf.METHOD,
        mpd_sgr.METHOD,
        tgo.METHOD,
        mpd_agl.METHOD,
        weak2strong.METHOD,
    )
}
"""Method cards by name."""
