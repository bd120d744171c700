//! eventicket-orchestrator
