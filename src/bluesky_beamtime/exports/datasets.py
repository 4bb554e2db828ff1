"""Runs through xarray: the formats netCDF and Zarr."""

from .netcdf import netcdf as netcdf
from .zarr_store import zarr as zarr
