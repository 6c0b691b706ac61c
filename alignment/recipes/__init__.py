"""Recipes: experiments with parameters, run as processes on Dask workers.

A recipe is a YAML file (`model`); its points are drawn once (`sampling`) and frozen in the store
(`frozen`). A driver (`driver`) sends each point to a worker (`work`), which fills the command
(`template`), runs it in a folder of its own (`process`) and keeps its log and outputs. Nothing
here computes a voxel.
"""
