//! Every form gives a payload that its consumers can read, whatever a sensor is called and gives.
