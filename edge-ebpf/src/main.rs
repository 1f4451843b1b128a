//! Program entry points: what the kernel calls.
#![no_std]
#![no_main]
