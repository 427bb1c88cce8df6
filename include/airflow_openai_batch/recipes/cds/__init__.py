"""Behind ``catalog_cd_images``."""

# Modules that other folders may import from.
__all__ = ["cd_catalog", "cd_checks"]
