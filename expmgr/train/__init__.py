"""The only room with TensorFlow, a process of its own: nobody imports it, `launch` starts `expmgr.train.worker`."""
