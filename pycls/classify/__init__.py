"""`decant classify`: from a config and label files to a trained bundle, its thresholds, its report.

config     the schema, strict        feed       images and labels by worker processes
engine     the loop                  evaluation what a net says of a split
bundle     what ships                report     one page, one JSON
"""
