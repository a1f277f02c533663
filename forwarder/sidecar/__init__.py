"""Keeps Fluent Bit running beside an apiserver that lives outside its cluster, and carries its lines to the receiver inside."""
