"""In and out: GeoJSON (QuPath), OME-Zarr labels, masks, tables, data set layouts."""
