"""Images, masks and manifests: read, paired, drawn, roughened, written."""
