"""Four tiny cases of every public layout, with the real names and quirks.

``from fakes.busi import write_fake_busi``: each function fills a folder and returns what the
importer of that name is pointed to. Image and mask number ``index`` are those of
:func:`fakes.scenes.draw_scene`, whatever the file format.
"""
