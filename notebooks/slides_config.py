"""For nbconvert, in make slides: figures without their code, slides that scroll, no numbers."""

c = get_config()  # noqa: F821  nbconvert gives it

c.TagRemovePreprocessor.remove_input_tags = {"hide-input"}
c.TagRemovePreprocessor.enabled = True
c.SlidesExporter.reveal_scroll = True
c.SlidesExporter.reveal_theme = "white"
c.SlidesExporter.exclude_input_prompt = True
c.SlidesExporter.exclude_output_prompt = True
