"""A torch module becomes a net of Caffe: trace.py walks it, modules.py, own.py and functions.py say what each part is, writer.py writes."""
