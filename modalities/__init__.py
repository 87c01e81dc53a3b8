"""The modality plug-ins that come with jepa-lightning."""
