"""Readers of tables (TSV, CSV, Excel workbooks, Parquet), and the detection of the columns' roles."""

__all__ = ["cells", "columns", "csv", "csv_lenient", "header_words", "parquet", "table_header", "talk", "tsv", "xlsx"]
