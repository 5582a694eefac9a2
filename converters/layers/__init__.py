"""The rules, one file a family. A file registers its rules with @layer and imports no other file of this folder."""
