"""Pictures: of what masks show and hide, and of what a trained JEPA sees in chosen samples."""
